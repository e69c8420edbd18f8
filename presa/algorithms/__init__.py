"""One file per algorithm, the whole loss on a page; they never import each other."""
