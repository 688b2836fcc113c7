"""How rows are changed by chance before they are trained on."""
