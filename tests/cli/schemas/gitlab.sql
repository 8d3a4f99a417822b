-- GitLab's tables of persons: the facts of its structure.sql.
CREATE TABLE users (
  id bigserial PRIMARY KEY, email varchar NOT NULL DEFAULT '' UNIQUE, encrypted_password varchar NOT NULL DEFAULT '',
  reset_password_token varchar UNIQUE, sign_in_count int DEFAULT 0, current_sign_in_at timestamp, last_sign_in_at timestamp,
  current_sign_in_ip varchar, last_sign_in_ip varchar, created_at timestamp, updated_at timestamp, name varchar,
  admin boolean NOT NULL DEFAULT false, projects_limit int NOT NULL, failed_attempts int DEFAULT 0, locked_at timestamp,
  username varchar UNIQUE, state varchar, color_scheme_id int NOT NULL DEFAULT 1, created_by_id bigint, avatar varchar,
  confirmation_token varchar UNIQUE, confirmed_at timestamp, unconfirmed_email varchar, website_url varchar NOT NULL DEFAULT '',
  notification_email varchar, encrypted_otp_secret varchar, encrypted_otp_secret_iv varchar, encrypted_otp_secret_salt varchar,
  otp_required_for_login boolean NOT NULL DEFAULT false, otp_backup_codes text, public_email varchar, feed_token varchar,
  incoming_email_token varchar, note text, preferred_language varchar, first_name varchar(255), last_name varchar(255),
  static_object_token varchar(255) UNIQUE, commit_email varchar, private_profile boolean NOT NULL DEFAULT false);
CREATE TABLE emails (
  id bigserial PRIMARY KEY, user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE, email varchar NOT NULL UNIQUE,
  created_at timestamp, confirmation_token varchar UNIQUE, confirmed_at timestamp);
CREATE TABLE identities (
  id bigserial PRIMARY KEY, extern_uid varchar, provider varchar, user_id bigint REFERENCES users ON DELETE CASCADE, created_at timestamp);
CREATE TABLE keys (
  id bigserial PRIMARY KEY, user_id bigint REFERENCES users ON DELETE CASCADE, key text, title varchar, fingerprint varchar, created_at timestamp);
CREATE TABLE personal_access_tokens (
  id bigserial PRIMARY KEY, user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE, name varchar NOT NULL, token_digest varchar UNIQUE,
  scopes varchar NOT NULL DEFAULT '', created_at timestamp NOT NULL);
CREATE TABLE user_details (
  user_id bigint PRIMARY KEY REFERENCES users ON DELETE CASCADE, job_title varchar(200) NOT NULL DEFAULT '',
  bio varchar(255) NOT NULL DEFAULT '', linkedin text NOT NULL DEFAULT '', twitter text NOT NULL DEFAULT '',
  website_url text NOT NULL DEFAULT '', location text NOT NULL DEFAULT '', organization text NOT NULL DEFAULT '',
  phone text CHECK (char_length(phone) <= 50), pronouns text, pronunciation text);
CREATE TABLE user_preferences (
  id bigserial PRIMARY KEY, user_id bigint NOT NULL UNIQUE REFERENCES users ON DELETE CASCADE, timezone varchar, first_day_of_week int,
  tab_width smallint);
CREATE TABLE authentication_events (
  id bigserial PRIMARY KEY, created_at timestamptz NOT NULL, user_id bigint REFERENCES users ON DELETE SET NULL,
  result smallint NOT NULL, ip_address inet, provider text NOT NULL, user_name text NOT NULL);
CREATE TABLE audit_events (
  id bigserial PRIMARY KEY, author_id bigint NOT NULL, entity_id bigint NOT NULL, entity_type varchar NOT NULL, details text,
  ip_address inet, author_name text, entity_path text, target_details text, created_at timestamp NOT NULL);
CREATE TABLE namespaces (
  id bigserial PRIMARY KEY, name varchar NOT NULL, path varchar NOT NULL, owner_id bigint REFERENCES users ON DELETE CASCADE, type varchar NOT NULL);
CREATE TABLE members (
  id bigserial PRIMARY KEY, access_level int NOT NULL, source_id bigint NOT NULL, source_type varchar NOT NULL,
  user_id bigint REFERENCES users ON DELETE CASCADE, invite_email varchar, invite_token varchar UNIQUE, created_at timestamp);
CREATE TABLE notes (
  id bigserial PRIMARY KEY, note text, noteable_type varchar, author_id bigint REFERENCES users ON DELETE CASCADE, created_at timestamp);
