"""Models whose truth can be computed: linear layers, ridge and logistic regression."""
