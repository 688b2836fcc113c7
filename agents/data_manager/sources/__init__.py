"""Where rows come from: one file per kind of source. What is done with the rows is not decided here."""
