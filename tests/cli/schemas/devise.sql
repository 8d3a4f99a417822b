-- Rails with Devise (all of its modules), paper_trail, Active Storage and ahoy: the facts of their generators.
CREATE TABLE users (
  id bigserial PRIMARY KEY, email varchar NOT NULL DEFAULT '', encrypted_password varchar NOT NULL DEFAULT '',
  reset_password_token varchar, reset_password_sent_at timestamp, remember_created_at timestamp,
  sign_in_count int NOT NULL DEFAULT 0, current_sign_in_at timestamp, last_sign_in_at timestamp,
  current_sign_in_ip varchar, last_sign_in_ip varchar, confirmation_token varchar, confirmed_at timestamp,
  confirmation_sent_at timestamp, unconfirmed_email varchar, failed_attempts int NOT NULL DEFAULT 0,
  unlock_token varchar, locked_at timestamp, provider varchar, uid varchar, first_name varchar, last_name varchar,
  time_zone varchar DEFAULT 'UTC', locale varchar NOT NULL DEFAULT 'en', created_at timestamp NOT NULL,
  updated_at timestamp NOT NULL);
CREATE UNIQUE INDEX ON users (email);
CREATE UNIQUE INDEX ON users (reset_password_token);
CREATE UNIQUE INDEX ON users (confirmation_token);
CREATE UNIQUE INDEX ON users (unlock_token);
CREATE TABLE posts (id bigserial PRIMARY KEY, user_id bigint NOT NULL REFERENCES users, title varchar, body text);
CREATE TABLE addresses (
  id bigserial PRIMARY KEY, user_id bigint REFERENCES users, street varchar, city varchar, postal_code varchar,
  phone_number varchar, country varchar);
CREATE TABLE versions (
  id bigserial PRIMARY KEY, item_type varchar NOT NULL, item_id bigint NOT NULL, event varchar NOT NULL,
  whodunnit varchar, object text, created_at timestamp);
CREATE TABLE active_storage_blobs (
  id bigserial PRIMARY KEY, key varchar NOT NULL UNIQUE, filename varchar NOT NULL, content_type varchar, metadata text,
  byte_size bigint NOT NULL, checksum varchar, created_at timestamp NOT NULL);
CREATE TABLE active_storage_attachments (
  id bigserial PRIMARY KEY, name varchar NOT NULL, record_type varchar NOT NULL, record_id bigint NOT NULL,
  blob_id bigint NOT NULL REFERENCES active_storage_blobs, created_at timestamp NOT NULL);
CREATE TABLE ahoy_visits (
  id bigserial PRIMARY KEY, visit_token varchar UNIQUE, visitor_token varchar, user_id bigint, ip varchar,
  user_agent text, referrer text, landing_page text, browser varchar, os varchar, country varchar, region varchar,
  city varchar, latitude float, longitude float, started_at timestamp);
CREATE TABLE newsletter_subscribers (
  id bigserial PRIMARY KEY, email varchar NOT NULL UNIQUE, confirmed boolean NOT NULL DEFAULT false, created_at timestamp NOT NULL);
