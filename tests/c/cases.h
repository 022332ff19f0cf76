/* The test cases of each file of the program `scripted`, each list ended by one without a name. */
#ifndef CASES_H
#define CASES_H

struct test_case {
    const char *name;
    void (*run)(void);
};

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }
#define END_OF_CASES                                                                               \
    {                                                                                              \
        NULL, NULL                                                                                 \
    }

extern const struct test_case dump_cases[];
extern const struct test_case request_cases[];
extern const struct test_case flow_cases[];
extern const struct test_case filter_cases[];
extern const struct test_case sink_cases[];
extern const struct test_case delete_cases[];
extern const struct test_case update_cases[];
extern const struct test_case readahead_cases[];
extern const struct test_case table_cases[];
extern const struct test_case mirror_cases[];
extern const struct test_case walk_cases[];
extern const struct test_case event_cases[];

#endif
