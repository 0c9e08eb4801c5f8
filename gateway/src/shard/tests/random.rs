//! A random simulation.
