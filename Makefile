# Everything a developer does. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTHON_FILES := nlct tests bench recipes setup.py kernels/run kernels/guest \
	arch/run arch/check arch/stress .ci/fresh \
	tools/layout.py tools/share tools/site tools/wheels tools/sbom.py
# Every file below csrc/, wherever it lies; tests/test_rooms.py sees that no list lacks one.
CORE := $(shell find csrc -name '*.[ch]' | sort)
C_FILES := $(CORE) $(wildcard bench/c/*.[ch] tests/c/*.[ch] tests/faults/*.c)
STRICT := -std=c11 -O2 -D_GNU_SOURCE -Wall -Wextra -Wpedantic -Wconversion -Wshadow \
	-Wstrict-prototypes -Wmissing-prototypes -Wcast-align -Wpointer-arith -Werror

.PHONY: help demo test check kernels arch lint format bench profile soak faults fuzz sanitize valgrind \
	strict docs share dist wheels fresh clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name what; do \
		printf '  make %-9s %s\n' "$$name" "$$what"; done

demo: $(VENV)/installed ## a scratch namespace, a large table, a zone flushed in every way
	$(BIN)/nlct demo $(DEMO)

# A file of tests in one process, several files at a time, by their names: xdist would put files with
# few tests last, and some of those are long.
AT_ONCE := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -p no:benchmark

test: $(VENV)/dev ## what a change or another machine can break, on the real kernel
	tools/bootstrap test
	$(BIN)/pytest $(AT_ONCE) -m "not exhaustive" $(TESTS)

# Random examples are new each time; EXAMPLES=many draws the same ones each time.
EXAMPLES := new
check: $(VENV)/dev ## the exhaustive rest: every variant, many random examples, long races
	tools/bootstrap test check
	$(BIN)/pytest $(AT_ONCE) -m "exhaustive or hypothesis" --hypothesis-profile $(EXAMPLES) $(TESTS)

kernels: dist ## the tests on other kernels, emulated; KERNEL=6.1 for one of them
	tools/bootstrap kernels
	$(BIN)/python kernels/run $(KERNEL)

arch: $(VENV)/dev ## other architectures, musl and no GIL, after `make wheels`; ARCH=musl for one row
	tools/bootstrap arch
	$(BIN)/python arch/run $(ARCH)

lint: $(VENV)/dev ## style, types and C formatting
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/mypy
	$(BIN)/python arch/run --help >/dev/null # it loads kernels/run, too
	clang-format --dry-run --Werror $(C_FILES)

format: $(VENV)/dev ## put everything in its format
	$(BIN)/ruff check --fix $(PYTHON_FILES)
	$(BIN)/ruff format $(PYTHON_FILES)
	clang-format -i $(C_FILES)

strict: ## the C core with a strict set of warnings, as errors
	for file in $(filter %.c,$(CORE)) tests/faults/*.c $(BENCH_SOURCES); do \
		$(CC) $(STRICT) $(CPPFLAGS) -fsyntax-only $$file || exit 1; done

# What the benchmark compiles: libnetfilter_conntrack is a peer that may be missing.
NFCT := $(wildcard /usr/include/libnetfilter_conntrack/libnetfilter_conntrack.h)
BENCH_SOURCES := $(filter-out $(if $(NFCT),,%/nfct.c),$(wildcard bench/c/*.c))
BENCH_BUILT := $(addprefix bench/build/,floor connect listener neighbour old.so $(if $(NFCT),nfct))

BENCH_TO = $(or $(TO),$(if $(QUICK),bench/build/quick,bench))
# The report is of those cases, too, that ran before one failed.
bench: $(VENV)/bench $(BENCH_BUILT) ## every case beside its peers, into bench/ (as root); see docs/benchmarks.md
	rm -f bench/build/benchmark.json
	$(BIN)/pytest bench -q --benchmark-quiet --benchmark-json=bench/build/benchmark.json \
		$(if $(CASES),-k "$(CASES)") $(if $(SAMPLES),--samples $(SAMPLES)) \
		$(if $(LIMIT),--limit $(LIMIT)) $(if $(OVSTEST),--ovstest $(OVSTEST)) \
		$(if $(OLD),--old $(OLD)) $(if $(QUICK),--quick) $(BENCH); status=$$?; \
	$(BIN)/python -m bench.report bench/build/benchmark.json $(BENCH_TO) && exit $$status

bench/build/nfct: LDLIBS := -lnetfilter_conntrack
bench/build/%.so: bench/c/%.c
	@mkdir -p $(@D)
	$(CC) $(STRICT) -shared -fPIC -o $@ $< -ldl
bench/build/%: bench/c/%.c $(wildcard bench/c/*.h)
	@mkdir -p $(@D)
	$(CC) $(STRICT) -o $@ $< $(LDLIBS)

profile: $(VENV)/installed bench/build/scan ## where our share of a dump goes: instructions, by callgrind
	bench/profile.sh $(BIN)/nlct

bench/build/scan: bench/c/scan.c $(CORE)
	@mkdir -p $(@D)
	$(CC) $(STRICT) -g -o $@ $< $(filter %.c,$(CORE))

soak: $(VENV)/dev ## everything at once for MINUTES=2, and nothing may be wrong (as root)
	tools/bootstrap test
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),2) $(if $(SEED),--seed $(SEED)) \
		$(if $(FLOWS),--flows $(FLOWS)) $(SOAK)

faults: $(VENV)/dev ## calls to the system fail for MINUTES=2, or SECONDS=20, and nothing may be wrong
	$(BIN)/python -m tests.faults \
		$(if $(SECONDS),--seconds $(SECONDS),--minutes $(or $(MINUTES),2)) \
		$(if $(SEED),--seed $(SEED)) $(FAULTS)

fuzz: ## libFuzzer on the core, part by part, FUZZ_SECONDS=60 in all
	$(MAKE) -C tests/c fuzz

sanitize: ## the C core under ASan and UBSan
	$(MAKE) -C tests/c sanitize

valgrind: ## the C core under valgrind
	$(MAKE) -C tests/c valgrind

# Not --quiet, which hides warnings from --strict, too. mkdocs-material tells of its successor in many lines.
docs: $(VENV)/docs ## the site, into build/site: pages, API, commands; every link checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

share: $(VENV)/installed ## man pages and completion files, in share/: both packages take them
	rm -rf share
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null)} \
		$(BIN)/python tools/share share

dist: $(VENV)/dev share ## source distribution and wheel, in dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

WHEELS := build/wheels
HEADERS := build/python3.14
wheels: $(VENV)/wheels $(HEADERS)/Python.h share ## for glibc and musl, x86_64 and aarch64; see docs/wheels.md
	tools/bootstrap wheels
	rm -rf $(WHEELS) build/base && mkdir -p $(WHEELS)
	$(BIN)/python -m build --no-isolation --outdir build/base . >build/base.log || { cat build/base.log && exit 1; }
	$(BIN)/python tools/wheels build/base/*.whl --headers $(HEADERS) --out $(WHEELS)
	tools/check-wheels $(BIN)/python $(WHEELS)/*.whl

# Debian's: the free-threaded interpreter has the same, but for Py_GIL_DISABLED. In the place of a
# pyconfig.h for many machines stands that of this one: those of amd64 and arm64 differ in nothing
# that the module uses.
$(HEADERS)/Python.h:
	rm -rf $(@D) $(@D).deb
	tools/unpack-deb forky libpython3.14-dev $(@D).deb
	cp $(@D).deb/usr/include/*-linux-gnu/python3.14/pyconfig.h $(@D).deb/usr/include/python3.14
	mv $(@D).deb/usr/include/python3.14 $(@D)

fresh: $(VENV)/dev ## the docs' first page on a bare Debian, after `make wheels`; SUITE=bookworm (as root)
	tools/bootstrap fresh
	$(BIN)/python .ci/fresh $(or $(FROM),$(WHEELS)) $(or $(SUITE),trixie)

clean: ## remove what was built
	rm -rf $(VENV) build dist share nlct.egg-info nlct/_nlct.* bench/build .pytest_cache .mypy_cache .ruff_cache
	if [ -d tests/c ]; then $(MAKE) -C tests/c clean; fi

$(BIN)/python:
	PYTHON=$(PYTHON) tools/bootstrap build
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade pip

$(VENV)/installed: $(BIN)/python pyproject.toml setup.py nlct/_build.py $(CORE)
	$(BIN)/python -m pip install -qq -e '.[cli]'
	touch $@

$(VENV)/dev: $(VENV)/installed
	$(BIN)/python -m pip install -qq --group dev
	touch $@

$(VENV)/bench: $(VENV)/dev
	$(BIN)/python -m pip install -qq --group bench
	touch $@

$(VENV)/docs: $(VENV)/installed
	$(BIN)/python -m pip install -qq --group docs
	touch $@

$(VENV)/wheels: $(VENV)/dev
	$(BIN)/python -m pip install -qq --group wheels
	touch $@
