//! Beam YAML to a graph: parser, expressions, registry of transforms.
