-- Spree: a shop on Rails, addresses shared by users and orders: the facts of its migrations.
CREATE TABLE spree_users (
  id bigserial PRIMARY KEY, encrypted_password varchar(128), password_salt varchar(128), email varchar UNIQUE,
  remember_token varchar, reset_password_token varchar, login varchar, ship_address_id bigint,
  bill_address_id bigint, authentication_token varchar, spree_api_key varchar(48), current_sign_in_ip varchar,
  first_name varchar, last_name varchar, selected_locale varchar, created_at timestamp NOT NULL,
  deleted_at timestamp);
CREATE TABLE spree_addresses (
  id bigserial PRIMARY KEY, firstname varchar, lastname varchar, address1 varchar, address2 varchar,
  city varchar, zipcode varchar, phone varchar, state_name varchar, alternative_phone varchar, company varchar,
  state_id bigint, country_id bigint, user_id bigint, created_at timestamp);
CREATE TABLE spree_orders (
  id bigserial PRIMARY KEY, number varchar(32), item_total numeric, state varchar, user_id bigint,
  bill_address_id bigint, ship_address_id bigint, email varchar, special_instructions text,
  last_ip_address varchar, guest_token varchar, created_by_id bigint, internal_note text, created_at timestamp);
CREATE TABLE spree_credit_cards (
  id bigserial PRIMARY KEY, month varchar, year varchar, cc_type varchar, last_digits varchar,
  gateway_customer_profile_id varchar, name varchar, user_id bigint, address_id bigint);
CREATE TABLE spree_products (
  id bigserial PRIMARY KEY, name varchar NOT NULL, description text, slug varchar);
CREATE TABLE friendly_id_slugs (
  id bigserial PRIMARY KEY, slug varchar NOT NULL, sluggable_id int, sluggable_type varchar(50));
