//! tidy
pub(crate) fn run() -> Result<bool, String> {
    Ok(true)
}
