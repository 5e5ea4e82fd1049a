"""Who is calling, and may they: tokens to identities, identities to decisions."""
