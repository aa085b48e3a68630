"""Ensemble members: trained heads on a frozen network, or a fine-tuned network."""
