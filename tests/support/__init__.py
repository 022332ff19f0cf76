"""What the tests share: independent readers and writers, tables, tools, traffic."""
