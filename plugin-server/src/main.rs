//! The binary `mtls-auth`; all of it is in the library, where fuzz targets can reach the decoders.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    mtls_auth::main()
}
