//! The operator's web page: server-rendered, and complete without scripts.
//!
//! Whoever has the password may undo, so the page asks for it, keeps a login in a cookie that no
//! other site's forms can use (SameSite=Strict, and a token in each form), and listens on this
//! machine only unless told otherwise. It does not speak TLS: put it behind something that does.

mod login;
mod page;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::Value;
use undo::control::{Client, Request};
use undo::manager::Search;
use undo::{Context, Error, Result};

use login::Logins;

struct Site {
    home: PathBuf,
    logins: Mutex<Logins>,
    /// What the last command of this page came to.
    said: Mutex<String>,
}

/// Serves until the process ends.
pub fn serve(home: &Path, listen: &str, password_file: &Path) -> Result<()> {
    let logins = Mutex::new(Logins::new(password_file)?);
    // A wrong folder is said now, not at the first click.
    drop(Client::connect(home)?);
    let site = Arc::new(Site {
        home: home.to_owned(),
        logins,
        said: Mutex::default(),
    });
    let routes = axum::Router::new()
        .route("/", get(main_page))
        .route("/login", get(login_page).post(log_in))
        .route("/logout", post(log_out))
        .route("/act", post(act))
        .with_state(site);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.context("web page", "start")?.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen).await.map_err(|e| {
            Error::new(listen, "listen", e).advise("choose another address with --listen")
        })?;
        println!("undo: the page is at http://{listen}/");
        axum::serve(listener, routes)
            .await
            .context("web page", "serve")
    })
}

#[derive(Deserialize, Default)]
struct Asked {
    #[serde(default)]
    user: String,
    #[serde(default)]
    subject: String,
    #[serde(default)]
    kind: String,
}

async fn main_page(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Response {
    let Some(token) = site.token(&headers) else {
        return Redirect::to("/login").into_response();
    };
    let said = lock(&site.said).clone();
    let home = site.home.clone();
    let rendered = blocking(move || {
        let mut client = Client::connect(&home)?;
        let search = Search {
            user: asked.user.clone(),
            subject: asked.subject.clone(),
            kind: asked.kind.clone(),
            limit: 100,
            ..Search::default()
        };
        let looked = page::Looked {
            status: client.ask(&Request::Status)?,
            histogram: client.ask(&Request::Histogram { buckets: 120 })?,
            verbs: client.ask(&Request::Timeline { search })?,
            said,
            token,
            user: asked.user,
            subject: asked.subject,
            kind: asked.kind,
        };
        Ok(page::main(&looked))
    })
    .await;
    match rendered {
        Ok(html) => page_response(html),
        Err(error) => (
            StatusCode::BAD_GATEWAY,
            page_response(page::trouble(&error.to_string())),
        )
            .into_response(),
    }
}

async fn login_page() -> Response {
    page_response(page::login(""))
}

#[derive(Deserialize)]
struct Password {
    password: String,
}

async fn log_in(State(site): State<Arc<Site>>, Form(form): Form<Password>) -> Response {
    // Guessing must be slow, and a wrong guess take as long as any.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let entered = lock(&site.logins).enter(&form.password);
    match entered {
        Ok(Some(cookie)) => {
            let cookie = format!("undo={cookie}; HttpOnly; SameSite=Strict; Path=/");
            ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
        }
        Ok(None) => (
            StatusCode::FORBIDDEN,
            page_response(page::login("This is not the password.")),
        )
            .into_response(),
        Err(error) => page_response(page::login(&error.to_string())),
    }
}

#[derive(Deserialize)]
struct Command {
    token: String,
    #[serde(rename = "do", default)]
    action: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    only: String,
}

async fn log_out(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
    Form(form): Form<Command>,
) -> Response {
    if site
        .token(&headers)
        .is_some_and(|token| token == form.token)
    {
        lock(&site.logins).leave(&cookie(&headers));
    }
    Redirect::to("/login").into_response()
}

async fn act(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
    Form(form): Form<Command>,
) -> Response {
    if site.token(&headers).is_none_or(|token| token != form.token) {
        return Redirect::to("/login").into_response();
    }
    let request = match form.action.as_str() {
        "snapshot" => Request::Snapshot,
        "rewind" => Request::Rewind {
            to: form.to.clone(),
            scope: Some(form.only.clone()).filter(|s| !s.is_empty()),
        },
        "rehearse" => Request::Replay { dry_run: true },
        "replay" => Request::Replay { dry_run: false },
        "cancel" => Request::Cancel,
        "undo" => Request::Undo,
        "commit" => Request::Commit,
        "drop" => match form.to.parse() {
            Ok(lsn) => Request::Drop { lsn },
            Err(_) => return (StatusCode::BAD_REQUEST, "an LSN is missing").into_response(),
        },
        _ => return (StatusCode::BAD_REQUEST, "there is no such command").into_response(),
    };
    *lock(&site.said) = format!("{} has begun.", form.action);
    // It may take long; the page shows how far it is.
    std::thread::spawn(move || {
        let answer = Client::connect(&site.home).and_then(|mut client| client.ask(&request));
        *lock(&site.said) = match answer {
            Ok(value) => page::outcome(&form.action, &value),
            Err(error) => format!("{} has failed: {error}", form.action),
        };
    });
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    Redirect::to("/").into_response()
}

impl Site {
    /// The token of the forms of whoever is logged in.
    fn token(&self, headers: &HeaderMap) -> Option<String> {
        lock(&self.logins).token(&cookie(headers))
    }
}

fn cookie(headers: &HeaderMap) -> String {
    let cookies = headers
        .get(header::COOKIE)
        .and_then(|c| c.to_str().ok())
        .unwrap_or_default();
    let ours = cookies
        .split("; ")
        .find_map(|cookie| cookie.strip_prefix("undo="));
    ours.unwrap_or_default().to_owned()
}

fn page_response(html: String) -> Response {
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(html)).into_response()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|e| Error::new("web page", "ask the undo manager", e))?
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A number or a text of an answer.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
