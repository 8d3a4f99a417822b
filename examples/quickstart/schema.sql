-- The demo's site: people, their sessions, and what they said. Nothing here is made for Lethe.
CREATE TABLE users (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  first_name    text,
  last_name     text,
  email         varchar(254) NOT NULL UNIQUE,
  password_hash text NOT NULL,
  locale        text NOT NULL DEFAULT 'en-US',
  time_zone     text NOT NULL DEFAULT 'UTC',
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE sessions (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id    bigint NOT NULL REFERENCES users (id),
  token      text NOT NULL UNIQUE,
  started_at timestamptz NOT NULL
);
CREATE INDEX ON sessions (user_id);

CREATE TABLE comments (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  author_id  bigint NOT NULL REFERENCES users (id),
  said       text NOT NULL,
  signature  text,
  written_at timestamptz NOT NULL
);
CREATE INDEX ON comments (author_id);
