//! Tests with a transport and a clock of their own: nothing is sent and nobody sleeps.
