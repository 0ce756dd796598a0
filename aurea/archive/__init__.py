"""Everything that a `.mar` is: its file names and documents, how it is built, judged and vetted."""
