"""The guided loss: judges, guide lookup, distillation terms, statistics. Tensors in, tensors out."""
