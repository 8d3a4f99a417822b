-- Discourse: nearly no foreign keys, the address in a table of its own: the facts of its migrations.
CREATE TABLE users (
  id serial PRIMARY KEY, username varchar(60) NOT NULL UNIQUE, created_at timestamp NOT NULL, updated_at timestamp NOT NULL,
  name varchar, last_posted_at timestamp, active boolean NOT NULL DEFAULT false, username_lower varchar(60) NOT NULL UNIQUE,
  last_seen_at timestamp, admin boolean NOT NULL DEFAULT false, trust_level int NOT NULL, approved boolean NOT NULL DEFAULT false,
  approved_by_id int, date_of_birth date, views int NOT NULL DEFAULT 0, ip_address inet, registration_ip_address inet,
  title varchar, uploaded_avatar_id int, locale varchar(10), primary_group_id int, flair_group_id int);
CREATE TABLE user_emails (
  id serial PRIMARY KEY, user_id int NOT NULL, email varchar(513) NOT NULL, "primary" boolean NOT NULL DEFAULT false,
  created_at timestamp NOT NULL, updated_at timestamp NOT NULL, normalized_email varchar);
CREATE UNIQUE INDEX ON user_emails (lower(email));
CREATE TABLE user_passwords (
  id serial PRIMARY KEY, user_id int NOT NULL UNIQUE, password_hash varchar(64) NOT NULL, password_salt varchar(32) NOT NULL,
  password_algorithm varchar(64) NOT NULL, created_at timestamp NOT NULL);
CREATE TABLE user_profiles (
  user_id int PRIMARY KEY, location varchar(3000), website varchar(3000), bio_raw text, bio_cooked text,
  dismissed_banner_key int, views int NOT NULL DEFAULT 0);
CREATE TABLE user_options (
  user_id int PRIMARY KEY, mailing_list_mode boolean NOT NULL DEFAULT false, email_digests boolean, timezone varchar,
  text_size_key int NOT NULL DEFAULT 0);
CREATE TABLE user_auth_tokens (
  id serial PRIMARY KEY, user_id int NOT NULL, auth_token varchar NOT NULL UNIQUE, prev_auth_token varchar NOT NULL,
  user_agent varchar, client_ip inet, rotated_at timestamp NOT NULL);
CREATE TABLE user_custom_fields (
  id serial PRIMARY KEY, user_id int NOT NULL, name varchar(256) NOT NULL, value text, created_at timestamp NOT NULL);
CREATE TABLE user_associated_accounts (
  id bigserial PRIMARY KEY, provider_name varchar NOT NULL, provider_uid varchar NOT NULL, user_id int, last_used timestamp NOT NULL,
  info jsonb NOT NULL DEFAULT '{}', credentials jsonb NOT NULL DEFAULT '{}', extra jsonb NOT NULL DEFAULT '{}');
CREATE TABLE single_sign_on_records (
  id serial PRIMARY KEY, user_id int NOT NULL, external_id varchar NOT NULL UNIQUE, last_payload text NOT NULL,
  external_username varchar, external_email varchar, external_name varchar, external_avatar_url varchar(1000));
CREATE TABLE email_tokens (
  id serial PRIMARY KEY, user_id int NOT NULL, email varchar NOT NULL, confirmed boolean NOT NULL DEFAULT false,
  expired boolean NOT NULL DEFAULT false, token_hash varchar NOT NULL UNIQUE, created_at timestamp NOT NULL);
CREATE TABLE email_logs (
  id serial PRIMARY KEY, to_address varchar NOT NULL, email_type varchar NOT NULL, user_id int, created_at timestamp NOT NULL);
CREATE TABLE user_histories (
  id serial PRIMARY KEY, action int NOT NULL, acting_user_id int, target_user_id int, details text, created_at timestamp NOT NULL,
  ip_address varchar, email varchar, subject text);
CREATE TABLE search_logs (
  id serial PRIMARY KEY, term varchar NOT NULL, user_id int, ip_address inet, search_type int NOT NULL, created_at timestamp NOT NULL);
CREATE TABLE topics (id serial PRIMARY KEY, title varchar NOT NULL, user_id int, created_at timestamp NOT NULL);
CREATE TABLE posts (
  id serial PRIMARY KEY, user_id int, topic_id int NOT NULL, raw text NOT NULL, cooked text NOT NULL, created_at timestamp NOT NULL);
CREATE TABLE invites (
  id serial PRIMARY KEY, invite_key varchar(32) NOT NULL UNIQUE, email varchar, invited_by_id int NOT NULL, created_at timestamp NOT NULL);
