//! Calls in our name: the token, the address, one renewal.

use std::sync::Arc;

use tiebeam_core::Result;

use crate::auth::{Credentials, Source};
use crate::clock::Clock;
use crate::http::{Answer, Call, Http, escaped};
use crate::options::DataflowOptions;

/// Google's services as a job's owner sees them.
pub(crate) struct Service {
    pub(crate) options: DataflowOptions,
    pub(crate) http: Http,
    credentials: Credentials,
}

impl Service {
    pub(crate) fn new(options: DataflowOptions, sources: Vec<Source>, clock: Arc<dyn Clock>) -> Service {
        let credentials = Credentials::new(sources, &clock);
        Service { options, http: Http::new(clock), credentials }
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.http.clock
    }

    /// Makes a request that may be made twice, and gives back what was answered, success or not.
    pub(crate) fn ask(&self, what: &str, call: &Call) -> Result<Answer> {
        let answer = self.http.call(what, &self.with_token(call)?)?;
        // A token may end before its time, when an account's rights change.
        if answer.status == 401 && self.credentials.renew() {
            return self.http.call(what, &self.with_token(call)?);
        }
        Ok(answer)
    }

    /// The same where only success will do.
    pub(crate) fn need(&self, what: &str, call: &Call) -> Result<Answer> {
        let answer = self.ask(what, call)?;
        if answer.is_success() { Ok(answer) } else { Err(answer.refusal(what)) }
    }

    fn with_token(&self, call: &Call) -> Result<Call> {
        let token = self.credentials.token()?;
        Ok(call.clone().header("authorization", format!("Bearer {}", token.bare())))
    }

    /// The address of the project's jobs in the region, or of what is below them.
    pub(crate) fn jobs(&self, below: &str) -> String {
        let DataflowOptions { dataflow_endpoint, project, region, .. } = &self.options;
        format!(
            "{dataflow_endpoint}/v1b3/projects/{}/locations/{}/jobs{below}",
            escaped(project),
            escaped(region)
        )
    }

    /// The address of one job, or of what is below it.
    pub(crate) fn job(&self, id: &str, below: &str) -> String {
        self.jobs(&format!("/{}{below}", escaped(id)))
    }
}
