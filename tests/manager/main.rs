//! The manager: what each death, request and shortage leads to, in every state it can be in.

mod coincidences;
mod common;
mod costs;
mod deaths;
mod obstacles;
mod requests;
mod restarts;
mod shortages;
mod storms;
mod strangers;
