"""Takes over an older `checkout_sessions` table with its rows, in place. Belongs to revision 0001; imports no model."""
