"""The file formats that weights come in, one file each."""
