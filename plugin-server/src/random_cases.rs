//! This knows how many cases tests on random input try, and which.

use proptest::test_runner::{Config, RngSeed};

/// So many cases, the same each time. `PROPTEST_CASES` asks for another number, and then for others each time.
pub(crate) fn random_cases(cases: u32, seed: u64) -> Config {
    let config = Config { failure_persistence: None, ..Config::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        None => Config { cases, rng_seed: RngSeed::Fixed(seed), ..config },
    }
}
