//! Long answers: lists that are written as they are read, page by page.
//!
//! # Theory of operation
//! A task of its own reads a page when the one before it is on its way to the client, so an answer takes
//! the memory of some pages, however long it is. A client that hangs up ends the task, and so does one that
//! takes nothing for [`PATIENCE`]; but a list that is read to [change](Pages::must_end) what is on it is
//! read to its end whoever hears of it. At [`LISTS_MAX`] lists another one is refused.
//!
//! An answer that cannot be finished is cut off, so that nobody takes a part for the whole. Each item is a
//! line, so that a client need not have all of them at once either.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::timeout;

use crate::error::{Code, Error, Result};

/// Lists that are being read at a time.
const LISTS_MAX: usize = 16;
/// Time that a client may take nothing.
const PATIENCE: Duration = Duration::from_secs(30);

static LISTS: Semaphore = Semaphore::const_new(LISTS_MAX);

/// A list to be read.
pub(crate) trait Pages: Send + 'static {
    /// The kind of thing on it.
    type Item: Serialize + Send;

    /// The next page, which may be empty; `None` behind the last.
    fn next(&mut self) -> impl Future<Output = Result<Option<Vec<Self::Item>>>> + Send;

    /// Whether it is read to its end, also when nobody hears of it any more.
    fn must_end(&self) -> bool;
}

/// The answer that is a list.
///
/// # Errors
/// When too many are being read, or the first page cannot be.
pub(super) async fn answer(pages: impl Pages) -> Result<Response> {
    answer_within(&LISTS, pages).await
}

async fn answer_within(lists: &'static Semaphore, pages: impl Pages) -> Result<Response> {
    let permit = lists.try_acquire().map_err(|_| {
        let message = format!("{LISTS_MAX} long lists are being read: try again when one has been");
        Error::new(Code::LimitReached, message)
    })?;
    let (chunks, mut unread) = mpsc::channel(1);
    tokio::spawn(write(pages, chunks, permit));
    let first = unread.recv().await.transpose()?;
    let body = Body::new(List { first, unread });
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// Writes a list, a chunk for each page.
async fn write<P: Pages>(
    mut pages: P,
    chunks: mpsc::Sender<Result<Bytes>>,
    _permit: SemaphorePermit<'static>,
) {
    let mut is_heard = true;
    let mut before = "[";
    loop {
        let (chunk, is_last) = match pages.next().await {
            Ok(Some(items)) if items.is_empty() => continue,
            Ok(Some(items)) => (lines(std::mem::replace(&mut before, ",\n"), &items), false),
            Ok(None) => (Ok(if before == "[" { "[]" } else { "]" }.into()), true),
            Err(error) => (Err(error), true),
        };
        if is_heard {
            is_heard = matches!(timeout(PATIENCE, chunks.send(chunk)).await, Ok(Ok(())));
        }
        if is_last || !is_heard && !pages.must_end() {
            return;
        }
    }
}

fn lines(mut before: &str, items: &[impl Serialize]) -> Result<Bytes> {
    let mut text = Vec::new();
    for item in items {
        text.extend_from_slice(std::mem::replace(&mut before, ",\n").as_bytes());
        let written = serde_json::to_writer(&mut text, item);
        written.map_err(|error| Error::new(Code::Internal, format!("cannot write a list: {error}")))?;
    }
    Ok(text.into())
}

/// The body of an answer.
struct List {
    first: Option<Bytes>,
    unread: mpsc::Receiver<Result<Bytes>>,
}

impl hyper::body::Body for List {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.unread.poll_recv(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use axum::body::to_bytes;
    use serde_json::Value;

    use super::*;

    /// A list of numbers, two on a page and every third page empty; it says how many pages were read.
    struct Numbers {
        pages: usize,
        read: Arc<AtomicUsize>,
        fails_at: usize,
        must_end: bool,
    }

    impl Numbers {
        fn new(pages: usize) -> (Self, Arc<AtomicUsize>) {
            let read = Arc::new(AtomicUsize::new(0));
            (Self { pages, read: read.clone(), fails_at: usize::MAX, must_end: false }, read)
        }
    }

    impl Pages for Numbers {
        type Item = usize;

        async fn next(&mut self) -> Result<Option<Vec<usize>>> {
            // Others have their turn, as with a datapath that is asked.
            tokio::task::yield_now().await;
            let page = self.read.fetch_add(1, Relaxed);
            if page == self.fails_at {
                return Err(Error::new(Code::Internal, "no more"));
            }
            let items = if page % 3 == 2 { vec![] } else { vec![page * 2, page * 2 + 1] };
            Ok((page < self.pages).then_some(items))
        }

        fn must_end(&self) -> bool {
            self.must_end
        }
    }

    /// Lists of a test's own.
    fn lists() -> &'static Semaphore {
        Box::leak(Box::new(Semaphore::new(LISTS_MAX)))
    }

    async fn body(pages: Numbers) -> std::result::Result<Value, String> {
        let answer = answer_within(lists(), pages).await.map_err(|error| error.message)?;
        let bytes = to_bytes(answer.into_body(), usize::MAX).await.map_err(|error| error.to_string())?;
        Ok(serde_json::from_slice(&bytes).expect("JSON"))
    }

    /// Lets every task go on until it waits for something.
    async fn settle() {
        for _ in 0..100_000 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_list_is_whole_or_cut_off() {
        assert_eq!(body(Numbers::new(0).0).await, Ok(serde_json::json!([])));
        assert_eq!(body(Numbers::new(4).0).await, Ok(serde_json::json!([0, 1, 2, 3, 6, 7])));
        let at = |fails_at| Numbers { fails_at, ..Numbers::new(4).0 };
        assert_eq!(body(at(0)).await, Err("no more".to_owned()), "refused");
        assert!(body(at(3)).await.is_err(), "cut off");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_or_gone_costs_some_pages_and_lists_are_counted() {
        let lists = lists();
        let (slow, read) = Numbers::new(1 << 20);
        let unread = answer_within(lists, slow).await.expect("begun");
        settle().await;
        assert!(read.load(Relaxed) <= 4, "{} pages in memory", read.load(Relaxed));
        // It goes on where the client is, and ends with it.
        drop(unread);
        settle().await;
        assert!(read.load(Relaxed) <= 5, "{} pages for nobody", read.load(Relaxed));

        let mut unread = Vec::new();
        while unread.len() < LISTS_MAX {
            unread.extend(answer_within(lists, Numbers::new(1 << 20).0).await);
        }
        let refused = answer_within(lists, Numbers::new(1).0).await.map(drop).expect_err("too many");
        assert_eq!(refused.code, Code::LimitReached);
        // A client that takes nothing for long does not keep others from theirs.
        tokio::time::sleep(PATIENCE * 2).await;
        assert!(answer_within(lists, Numbers::new(1).0).await.is_ok());
        drop(unread);

        let (ending, read) = Numbers::new(1000);
        drop(answer_within(lists, Numbers { must_end: true, ..ending }).await.expect("begun"));
        settle().await;
        assert_eq!(read.load(Relaxed), 1001, "done to its end");
    }
}
