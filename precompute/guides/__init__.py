"""The guide behind one interface: a local model, an embeddings endpoint, or stored vectors."""
