//! Work beside control: what looks at every room would hold up pushes and logins for as long.

use std::sync::Arc;

use futures_channel::oneshot;

use super::Fault;
use crate::directory::Directory;

/// Answers from the directory on control's second thread, one question after the other. Whoever has hung up
/// by then costs nothing.
pub(super) async fn aside<T: Send + 'static>(
    directory: &Arc<Directory>,
    question: impl FnOnce(&Directory) -> T + Send + 'static,
) -> Result<T, Fault> {
    let directory = Arc::clone(directory);
    let (answer, answered) = oneshot::channel();
    drop(monoio::spawn_blocking(move || {
        if !answer.is_canceled() {
            let _ = answer.send(question(&directory)); // the caller may go while it is being answered
        }
    }));
    answered.await.map_err(|oneshot::Canceled| Fault::busy("the question was not answered; try again"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::control::start;
    use crate::directory::{DirectoryWriter, HashSecret};

    #[test]
    fn control_goes_on_while_a_question_is_being_answered() {
        let writer = DirectoryWriter::new(1, 1, &HashSecret::random());
        let (go, gone) = channel();
        let answer = start::runtime().unwrap().block_on(async {
            let patience = Duration::from_secs(20);
            let task = monoio::spawn(async move { go.send(()).unwrap() });
            let answer = aside(writer.directory(), move |_| gone.recv_timeout(patience)).await;
            task.await;
            answer
        });
        assert!(answer.unwrap().is_ok());
    }
}
