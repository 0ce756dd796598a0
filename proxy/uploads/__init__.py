"""A clip on its way in: a form or bare bytes, counted, bounded and kept in memory."""
