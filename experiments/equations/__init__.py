"""Every equation, table and claim that the five documents print, run as it is printed.

``python -m experiments.equations`` prints the register; its row N6 computes the gradients of data points in parallel
(E6). ``register`` says what a row is and which verdict it gets, ``quotes`` holds the documents' sentences, and
``common`` the networks that the rows run on; then one function per row, named by the row's identifier, in modules of
its document's name.
"""
