-- Keycloak's tables of persons: the facts of its changelogs. The key is a UUID as text, a moment is a number.
CREATE TABLE user_entity (
  id varchar(36) PRIMARY KEY, email varchar(255), email_constraint varchar(255), email_verified boolean NOT NULL DEFAULT false,
  enabled boolean NOT NULL DEFAULT false, federation_link varchar(255), first_name varchar(255), last_name varchar(255),
  realm_id varchar(255), username varchar(255), created_timestamp bigint, service_account_client_link varchar(255),
  not_before int NOT NULL DEFAULT 0, UNIQUE (realm_id, email_constraint), UNIQUE (realm_id, username));
CREATE TABLE user_attribute (
  name varchar(255) NOT NULL, value varchar(255), user_id varchar(36) NOT NULL REFERENCES user_entity,
  id varchar(36) PRIMARY KEY, long_value_hash bytea, long_value_hash_lower_case bytea, long_value text);
CREATE TABLE credential (
  id varchar(36) PRIMARY KEY, salt bytea, type varchar(255), user_id varchar(36) REFERENCES user_entity,
  created_date bigint, user_label varchar(255), secret_data text, credential_data text, priority int, version int);
CREATE TABLE federated_identity (
  identity_provider varchar(255) NOT NULL, realm_id varchar(36), federated_user_id varchar(255),
  federated_username varchar(255), token text, user_id varchar(36) NOT NULL REFERENCES user_entity,
  PRIMARY KEY (identity_provider, user_id));
CREATE TABLE user_required_action (
  user_id varchar(36) NOT NULL REFERENCES user_entity, required_action varchar(255) NOT NULL DEFAULT ' ',
  PRIMARY KEY (required_action, user_id));
CREATE TABLE user_role_mapping (
  role_id varchar(255) NOT NULL, user_id varchar(36) NOT NULL REFERENCES user_entity, PRIMARY KEY (role_id, user_id));
CREATE TABLE user_consent (
  id varchar(36) PRIMARY KEY, client_id varchar(255), user_id varchar(36) NOT NULL REFERENCES user_entity,
  created_date bigint, last_updated_date bigint, client_storage_provider varchar(36), external_client_id varchar(255));
CREATE TABLE user_consent_client_scope (
  user_consent_id varchar(36) NOT NULL REFERENCES user_consent, scope_id varchar(36) NOT NULL,
  PRIMARY KEY (user_consent_id, scope_id));
CREATE TABLE offline_user_session (
  user_session_id varchar(36) NOT NULL, user_id varchar(255) NOT NULL, realm_id varchar(36) NOT NULL, created_on int NOT NULL,
  offline_flag varchar(4) NOT NULL, data text, last_session_refresh int NOT NULL DEFAULT 0, broker_session_id varchar(1024),
  PRIMARY KEY (user_session_id, offline_flag));
CREATE TABLE event_entity (
  id varchar(36) PRIMARY KEY, client_id varchar(255), details_json varchar(2550), error varchar(255), ip_address varchar(255),
  realm_id varchar(255), session_id varchar(255), event_time bigint, type varchar(255), user_id varchar(255));
