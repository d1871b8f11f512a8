//! The Fn API worker without a network: a bundle descriptor and encoded bytes onto exec.
