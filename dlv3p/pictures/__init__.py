"""Everything that is looked at: arrays to pictures, tables to figures, frames to animations."""
