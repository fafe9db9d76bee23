//! These are the calls of OpenSSL that the openssl crate does not bind, behind functions that are safe to call. It is the
//! only unsafe code of the shim.
//!
//! OpenSSL calls back into some of it. What it calls must not panic: a panic there ends the process.
#![allow(unsafe_code)]

mod accept_any;
mod client_hello;
mod session_tickets;

pub(super) use self::accept_any::accept_any;
pub(super) use self::client_hello::{offers_extended_master_secret, server_name_extension};
pub(super) use self::session_tickets::{NAME_BYTES, TicketKey, Ticketing, set_tickets, ticket_contents};
