"""What several tests use, a subject a file.

Messages and tables, without the core:
  netlink       the bytes of messages and attributes; asking the kernel
  encoder       flows as ctnetlink messages, written and read
  oracle        the whole table as the kernel tells it, to hold nlct's results against
  filters       what a filter means; random filters and tables
  pyroute, tool pyroute2 and conntrack(8) as further readers
Tables and traffic to try things on:
  flows         one entry of every kind, in zones of every kind
  everything    every attribute that ctnetlink can tell
  traffic       namespaces joined by veth, and packets that flow
What runs elsewhere or otherwise:
  examples      how many random examples, and whether new ones
  command       the command line: in this process, as one of its own, on a terminal
  processes     Python code in a process of its own, perhaps without privilege
  namespaces    which namespaces a thread belongs to
  core          the compiled core with some functions replaced
  seccomp       system calls that a policy refuses
  recipes       the programs of recipes/, loaded as modules
  interrupts    a signal handler that raises, at every point where one can
  turns         one test at a time where it changes what all namespaces share
  threads       the threads that nlct itself has
  memory        what the process holds
"""
