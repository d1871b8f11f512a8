//! StageSpec, operators, the life of a bundle, and the Harness that a door supplies.
