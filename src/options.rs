//! Kernel command line words → [`Options`]. One published table, one parser; reads no file.
