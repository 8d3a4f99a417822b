-- WordPress with WooCommerce: no foreign key at all, names by custom only; here in PostgreSQL's types.
CREATE TABLE wp_users (
  "ID" bigserial PRIMARY KEY, user_login varchar(60) NOT NULL DEFAULT '', user_pass varchar(255) NOT NULL DEFAULT '',
  user_nicename varchar(50) NOT NULL DEFAULT '', user_email varchar(100) NOT NULL DEFAULT '', user_url varchar(100) NOT NULL DEFAULT '',
  user_registered timestamp NOT NULL DEFAULT '1970-01-01', user_activation_key varchar(255) NOT NULL DEFAULT '',
  user_status int NOT NULL DEFAULT 0, display_name varchar(250) NOT NULL DEFAULT '');
CREATE TABLE wp_usermeta (
  umeta_id bigserial PRIMARY KEY, user_id bigint NOT NULL DEFAULT 0, meta_key varchar(255), meta_value text);
CREATE TABLE wp_posts (
  "ID" bigserial PRIMARY KEY, post_author bigint NOT NULL DEFAULT 0, post_date timestamp NOT NULL DEFAULT '1970-01-01',
  post_content text NOT NULL, post_title text NOT NULL, post_password varchar(255) NOT NULL DEFAULT '', post_name varchar(200) NOT NULL DEFAULT '');
CREATE TABLE wp_comments (
  "comment_ID" bigserial PRIMARY KEY, "comment_post_ID" bigint NOT NULL DEFAULT 0, comment_author text NOT NULL,
  comment_author_email varchar(100) NOT NULL DEFAULT '', comment_author_url varchar(200) NOT NULL DEFAULT '',
  "comment_author_IP" varchar(100) NOT NULL DEFAULT '', comment_date timestamp NOT NULL DEFAULT '1970-01-01', comment_content text NOT NULL,
  comment_agent varchar(255) NOT NULL DEFAULT '', comment_parent bigint NOT NULL DEFAULT 0, user_id bigint NOT NULL DEFAULT 0);
CREATE TABLE wp_options (option_id bigserial PRIMARY KEY, option_name varchar(191) NOT NULL DEFAULT '' UNIQUE, option_value text NOT NULL);
CREATE TABLE wp_wc_orders (
  id bigint PRIMARY KEY, status varchar(20), currency varchar(10), total_amount numeric(26, 8), customer_id bigint,
  billing_email varchar(320), date_created_gmt timestamp, payment_method varchar(100), transaction_id varchar(100),
  ip_address varchar(100), user_agent text, customer_note text);
CREATE TABLE wp_wc_order_addresses (
  id bigserial PRIMARY KEY, order_id bigint NOT NULL, address_type varchar(20), first_name text, last_name text, company text,
  address_1 text, address_2 text, city text, state text, postcode text, country text, email varchar(320), phone varchar(100));
CREATE TABLE wp_wc_customer_lookup (
  customer_id bigserial PRIMARY KEY, user_id bigint UNIQUE, username varchar(60) NOT NULL DEFAULT '', first_name varchar(255) NOT NULL,
  last_name varchar(255) NOT NULL, email varchar(100), date_last_active timestamp, date_registered timestamp,
  country char(2) NOT NULL DEFAULT '', postcode varchar(20) NOT NULL DEFAULT '', city varchar(100) NOT NULL DEFAULT '',
  state varchar(100) NOT NULL DEFAULT '');
CREATE TABLE wp_woocommerce_payment_tokens (
  token_id bigserial PRIMARY KEY, gateway_id varchar(200) NOT NULL, token text NOT NULL, user_id bigint NOT NULL DEFAULT 0, type varchar(200) NOT NULL);
