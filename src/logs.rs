//! App logs (`logs-terminal-tunnel.md` 2): live stream while somebody listens, history of 100 lines.
//!
//! Never blocks its callers and never fails an app transition: publishing is fire-and-forget (weakness W7).

use protocol::AppId;

/// Handle of the log pipeline. Cloneable.
#[derive(Clone, Debug)]
pub struct Logs {}

impl Logs {
    /// A line written by the agent itself: always published as `{"type":"build","chunk":text}`, kept in the history.
    pub fn agent_line(&self, _app: AppId, _app_name: &str, _text: &str) {
        todo!()
    }

    /// Tells viewers to clear themselves (`LOGGER_CLEAR`); not kept.
    pub fn clear_viewers(&self, _app: AppId, _app_name: &str) {
        todo!()
    }

    /// Empties the history, in memory and on disk.
    pub fn clear_history(&self, _app: AppId, _app_name: &str) {
        todo!()
    }

    /// One line of an operation's output (pull progress as the daemon's JSON): gated, batched, kept in the history.
    pub fn output_line(&self, _app: AppId, _app_name: &str, _line: String) {
        todo!()
    }

    /// Follows the log of the app's container until it ends. A second call while one follows does nothing.
    pub fn follow(&self, _app: AppId, _app_name: &str) {
        todo!()
    }

    /// What `get_app_log_history` answers for a container name that parsed to `app`.
    pub async fn history(&self, _app: AppId, _app_name: &str) -> Vec<String> {
        todo!()
    }

    /// After a (re)connect: asks which log topics have listeners and follows the meta events (2.4, 2.9).
    pub async fn attach(&self, _session: wamp::client::Session) {
        todo!()
    }

    /// Flushes histories and ends all followers, within a bound.
    pub async fn close(&self) {
        todo!()
    }
}
