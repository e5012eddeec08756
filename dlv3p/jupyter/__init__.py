"""What only notebooks need: the papermill engine and the demo."""
