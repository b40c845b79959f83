//! Composition: builds the parts, start-up order, shutdown order with a deadline.
