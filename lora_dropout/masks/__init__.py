"""Masks, which know no model: their random bits, their law, one draw."""
