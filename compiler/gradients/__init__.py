"""Reverse-mode differentiation of graphs: a rule per operator, made of operators."""
