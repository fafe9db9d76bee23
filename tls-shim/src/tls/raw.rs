//! These are the calls of OpenSSL and of AWS-LC that the openssl crate does not bind, behind functions that are safe to call.
//! It is the only unsafe code of the shim. Which of the two libraries there is, only this knows: `aws_lc` and `openssl` have
//! the same functions.
//!
//! The libraries call back into some of it. What they call must not panic: a panic there ends the process.
#![allow(unsafe_code, reason = "the calls that the binding lacks; each block says why it is sound")]

#[cfg(feature = "aws-lc")]
mod aws_lc;
mod client_hello;
#[cfg(not(feature = "aws-lc"))]
mod openssl;
mod ticketing;

use ::openssl::error::ErrorStack;

#[cfg(feature = "aws-lc")]
use self::aws_lc as library;
#[cfg(not(feature = "aws-lc"))]
use self::openssl as library;

pub(super) use self::client_hello::{offers_extended_master_secret, server_name_extension};
#[cfg(all(test, feature = "aws-lc"))]
pub(super) use self::library::rename_after_server_hello;
pub(super) use self::library::{
    NAME, SERVER_KEYS, SESSION_HAS_CHAIN, accept_any, add_chain_cert, forbid, is_strong,
    may_withhold_tickets, prefer_own_order, send_few_tickets, set_client_hello_callback, set_tickets,
    ticket_contents, withhold_tickets,
};
pub(crate) use self::library::{library, set_ciphersuites};
pub(super) use self::ticketing::{NAME_BYTES, TicketKey, Ticketing};

/// Why a ClientHello ends its connection.
pub(super) enum Refused {
    /// It is not as it should be: the client is told `decode_error`.
    Malformed,
    /// The fault is not the client's.
    Failed(ErrorStack),
}
