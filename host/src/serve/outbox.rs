//! Tells programs what has happened to nodes: a command (`--hook`), or a server (`--webhook`). Events come from the store, so a
//! restart loses none; each is told until the program has it, and maybe once more. In order for each node; no node waits for
//! another. Decides nothing about nodes.

mod hook;
mod queue;
mod webhook;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use imprint::chain::chain;
use imprint::shown::line;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};

use super::metrics::Metrics;
use crate::bundles::numbered;
use crate::crash;
use crate::inject::command::Script;
use crate::store::{Store, StoreError, Told};
use queue::{Done, Queue};
pub use webhook::{Address, Webhook, WebhookError};

/// Events that are told at the same time, to each program.
const AT_ONCE: usize = 8;
/// After an error of the store, the next look at it comes after this time.
const PAUSE: Duration = Duration::from_secs(10);

/// Who is told.
#[derive(Clone, Default)]
pub struct Tell {
    /// A command of the shell. The event is on its standard input.
    pub hook: Option<Script>,
    /// A server.
    pub webhook: Option<Webhook>,
}

/// The events that wait, and who is told.
pub(super) struct Outbox {
    told: Vec<Told>,
    bells: Vec<Notify>,
}

/// One program, and where its events are.
struct Target {
    told: Told,
    tell: Tell,
    store: Mutex<Store>,
    metrics: Arc<Metrics>,
    /// How often it was looked for new events.
    #[cfg(test)]
    looks: std::sync::atomic::AtomicUsize,
}

impl Outbox {
    pub(super) fn new(tell: &Tell) -> Outbox {
        let hook = tell.hook.is_some().then_some(Told::Hook);
        let webhook = tell.webhook.is_some().then_some(Told::Webhook);
        let told: Vec<Told> = hook.into_iter().chain(webhook).collect();
        let bells = told.iter().map(|_| Notify::new()).collect();
        Outbox { told, bells }
    }

    /// Who is told. Events are stored for these.
    pub(super) fn told(&self) -> &[Told] {
        &self.told
    }

    /// There may be new events.
    pub(super) fn look(&self) {
        self.bells.iter().for_each(Notify::notify_one);
    }

    /// Tells until the server stops. `stores`: an open store for each program.
    pub(super) async fn run(
        self: Arc<Outbox>,
        tell: Tell,
        stores: Vec<Store>,
        metrics: Arc<Metrics>,
        stopped: watch::Receiver<bool>,
    ) {
        let mut programs = JoinSet::new();
        for (index, (told, store)) in self.told.iter().zip(stores).enumerate() {
            let target = Target::new(*told, tell.clone(), store, metrics.clone());
            programs.spawn(deliver(self.clone(), index, Arc::new(target), stopped.clone()));
        }
        while programs.join_next().await.is_some() {}
    }
}

impl Target {
    fn new(told: Told, tell: Tell, store: Store, metrics: Arc<Metrics>) -> Target {
        Target {
            told,
            tell,
            store: Mutex::new(store),
            metrics,
            #[cfg(test)]
            looks: std::sync::atomic::AtomicUsize::new(0),
        }
    }
}

async fn deliver(outbox: Arc<Outbox>, index: usize, target: Arc<Target>, mut stopped: watch::Receiver<bool>) {
    let Some(bell) = outbox.bells.get(index) else { return };
    let mut queue = Queue::default();
    let mut running = JoinSet::new();
    // When to look for new events: at first, after a bell, and some time after the store has failed. Not whenever one was told.
    let mut look = Some(Instant::now());
    loop {
        if look.is_some_and(|at| at <= Instant::now()) {
            look = match find(&target, queue.seen()).await {
                Ok((nodes, last)) => {
                    queue.found(nodes, last);
                    None
                }
                Err(why) => {
                    tracing::error!("events for the {}: {why}", target.told.word());
                    Some(Instant::now() + PAUSE)
                }
            };
        }
        while running.len() < AT_ONCE
            && let Some((node, sent)) = queue.next(Instant::now())
        {
            let target = target.clone();
            running.spawn(async move {
                let done = one(&target, &node, sent).await;
                (node, done)
            });
        }
        let next = queue.earliest().into_iter().chain(look).min();
        tokio::select! {
            () = bell.notified() => {
                // A bell that rings for each of many events need not make the store be read for each.
                sleep(Duration::from_millis(1)).await;
                look = Some(Instant::now());
            }
            Some(done) = running.join_next(), if !running.is_empty() => {
                if let Ok((node, done)) = done {
                    queue.done(node, done, Instant::now());
                }
            }
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            // Dropping the tasks ends the commands. What they were told is told again.
            _ = stopped.changed() => return,
        }
    }
}

/// Runs something with the target's store, on a thread that may wait for the disk.
async fn with_store<T: Send + 'static>(
    target: &Arc<Target>,
    act: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, String> {
    let target = target.clone();
    let done = spawn_blocking(move || act(&mut target.store.lock().unwrap_or_else(PoisonError::into_inner)));
    done.await.map_err(|error| error.to_string())?.map_err(|error| chain(&error))
}

async fn find(target: &Arc<Target>, since: i64) -> Result<(Vec<String>, i64), String> {
    let told = target.told;
    #[cfg(test)]
    target.looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    with_store(target, move |store| store.nodes_with_events(told, since)).await
}

/// Tells the next event of a node. `sent`: the number of an event that the program has, and the store still holds.
async fn one(target: &Arc<Target>, node: &str, sent: Option<i64>) -> Done {
    let (told, word) = (target.told, target.told.word());
    let name = node.to_owned();
    let event = match with_store(target, move |store| store.next_event(told, &name)).await {
        Ok(Some(event)) => event,
        Ok(None) => return Done::Nothing,
        Err(why) => return failed(target, node, &why, sent),
    };
    let id = event.id;
    if sent != Some(id) {
        let text = numbered(&event.event, id);
        let tell = match told {
            Told::Hook => match &target.tell.hook {
                Some(command) => hook::tell(command, &text).await,
                None => return Done::Nothing,
            },
            Told::Webhook => match &target.tell.webhook {
                Some(webhook) => webhook.tell(&text).await,
                None => return Done::Nothing,
            },
        };
        if let Err(why) = tell {
            return failed(target, node, &why, None);
        }
        target.metrics.told(word, "told");
        crash::point("bundle told");
    }
    let name = node.to_owned();
    let more = with_store(target, move |store| {
        let changes = store.changes()?;
        changes.event_told(id)?;
        changes.commit()?;
        Ok(store.next_event(told, &name)?.is_some())
    });
    match more.await {
        Ok(more) => Done::Told { more },
        // It is not told again while this server runs.
        Err(why) => failed(target, node, &why, Some(id)),
    }
}

fn failed(target: &Target, node: &str, why: &str, sent: Option<i64>) -> Done {
    target.metrics.told(target.told.word(), "failed");
    tracing::warn!("event of {node}, --{}: {}; it is told again later", target.told.word(), line(why));
    Done::Failed { sent }
}

#[cfg(test)]
mod tests {
    use imprint::payload::EstUrl;
    use imprint::time::Timestamp;

    use super::*;

    /// The accident: thousands of nodes report, and after each event that was told the whole store is looked through again.
    #[tokio::test]
    async fn the_store_is_looked_through_after_a_bell_only() {
        let dir = tempfile::tempdir().unwrap();
        let (path, now) = (dir.path().join("imprint.db"), Timestamp::from_secs(1_795_957_200));
        let url = EstUrl::try_from("https://127.0.0.1:18443/.well-known/est").unwrap();
        let mut store = Store::create(&path, &[url], now).unwrap();
        let add = |store: &mut Store, names: std::ops::Range<usize>| {
            let changes = store.changes().unwrap();
            names.for_each(|node| changes.add_event(Told::Hook, &format!("node{node}"), "{}", 64, now).unwrap());
            changes.commit().unwrap();
        };
        add(&mut store, 0..40);
        let tell = Tell { hook: Some("true".parse().unwrap()), webhook: None };
        let outbox = Arc::new(Outbox::new(&tell));
        let metrics = Arc::new(Metrics::new(now));
        let target = Arc::new(Target::new(Told::Hook, tell, Store::open(&path).unwrap(), metrics));
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(deliver(outbox.clone(), 0, target.clone(), stopped));
        for names in [40..80, 80..120] {
            while !store.nodes_with_events(Told::Hook, 0).unwrap().0.is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
            add(&mut store, names);
            outbox.look();
        }
        while !store.nodes_with_events(Told::Hook, 0).unwrap().0.is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        stop.send(true).unwrap();
        running.await.unwrap();
        assert_eq!(target.looks.load(std::sync::atomic::Ordering::Relaxed), 3, "at first, and after each of two bells");
    }
}
