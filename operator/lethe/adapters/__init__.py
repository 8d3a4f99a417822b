"""One module or package per technology; each turns its library's words and errors into its port's."""
