"""DVC projects: the files of a new project, and the results of its runs."""
