// Tables and code that scroll sideways can be reached by keyboard and have a name; Material leaves that out.
