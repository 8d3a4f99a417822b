-- Mastodon: a login hangs on a public account, whose names stand above it: the facts of its schema.rb.
CREATE TABLE accounts (
  id bigserial PRIMARY KEY, username varchar NOT NULL DEFAULT '', domain varchar, private_key text,
  public_key text NOT NULL DEFAULT '', created_at timestamp NOT NULL, updated_at timestamp NOT NULL, note text NOT NULL DEFAULT '',
  display_name varchar NOT NULL DEFAULT '', uri varchar NOT NULL DEFAULT '', url varchar, avatar_file_name varchar,
  header_file_name varchar, avatar_remote_url varchar, locked boolean NOT NULL DEFAULT false, fields jsonb);
CREATE TABLE users (
  id bigserial PRIMARY KEY, email varchar NOT NULL DEFAULT '' UNIQUE, created_at timestamp NOT NULL, updated_at timestamp NOT NULL,
  encrypted_password varchar NOT NULL DEFAULT '', reset_password_token varchar UNIQUE, reset_password_sent_at timestamp,
  sign_in_count int NOT NULL DEFAULT 0, current_sign_in_at timestamp, last_sign_in_at timestamp, confirmation_token varchar UNIQUE,
  confirmed_at timestamp, unconfirmed_email varchar, locale varchar, last_emailed_at timestamp, otp_backup_codes varchar[],
  account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE, disabled boolean NOT NULL DEFAULT false, invite_id bigint,
  sign_up_ip inet, time_zone varchar, otp_secret varchar, settings text);
CREATE TABLE session_activations (
  id bigserial PRIMARY KEY, session_id varchar NOT NULL UNIQUE, created_at timestamp NOT NULL, user_agent varchar NOT NULL DEFAULT '',
  ip inet, access_token_id bigint, user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE);
CREATE TABLE login_activities (
  id bigserial PRIMARY KEY, user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE, authentication_method varchar, provider varchar,
  success boolean, failure_reason varchar, ip inet, user_agent varchar, created_at timestamp);
CREATE TABLE identities (
  id bigserial PRIMARY KEY, provider varchar NOT NULL DEFAULT '', uid varchar NOT NULL DEFAULT '', created_at timestamp NOT NULL,
  user_id bigint REFERENCES users ON DELETE CASCADE);
CREATE TABLE oauth_access_tokens (
  id bigserial PRIMARY KEY, token varchar NOT NULL UNIQUE, refresh_token varchar UNIQUE, expires_in int, created_at timestamp NOT NULL,
  scopes varchar, application_id bigint, resource_owner_id bigint REFERENCES users ON DELETE CASCADE, last_used_ip inet);
CREATE TABLE user_invite_requests (
  id bigserial PRIMARY KEY, user_id bigint REFERENCES users ON DELETE CASCADE, text text, created_at timestamp NOT NULL);
CREATE TABLE statuses (
  id bigserial PRIMARY KEY, uri varchar, text text NOT NULL DEFAULT '', created_at timestamp NOT NULL, account_id bigint NOT NULL REFERENCES accounts);
CREATE TABLE email_domain_blocks (id bigserial PRIMARY KEY, domain varchar NOT NULL UNIQUE, created_at timestamp NOT NULL);
