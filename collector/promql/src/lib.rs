//! The query engine: parse, plan and evaluate PromQL over any source of samples. Pure: no I/O, no clock.
