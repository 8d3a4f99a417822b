-- Auth.js (NextAuth) with Prisma: quoted names in camel case, keys as text: the facts of its adapter's schema.
CREATE TABLE "User" (
  id text PRIMARY KEY, name text, email text UNIQUE, "emailVerified" timestamp, image text,
  "hashedPassword" text, "phoneNumber" text, "createdAt" timestamp NOT NULL DEFAULT now(),
  "updatedAt" timestamp NOT NULL);
CREATE TABLE "Account" (
  id text PRIMARY KEY, "userId" text NOT NULL REFERENCES "User" ON DELETE CASCADE, type text NOT NULL,
  provider text NOT NULL, "providerAccountId" text NOT NULL, refresh_token text, access_token text,
  expires_at int, id_token text, UNIQUE (provider, "providerAccountId"));
CREATE TABLE "Session" (
  id text PRIMARY KEY, "sessionToken" text NOT NULL UNIQUE,
  "userId" text NOT NULL REFERENCES "User" ON DELETE CASCADE, expires timestamp NOT NULL);
CREATE TABLE "VerificationToken" (
  identifier text NOT NULL, token text NOT NULL UNIQUE, expires timestamp NOT NULL, UNIQUE (identifier, token));
CREATE TABLE "Post" (
  id serial PRIMARY KEY, "authorId" text NOT NULL REFERENCES "User", title text NOT NULL, content text);
CREATE TABLE "Order" (
  id serial PRIMARY KEY, "customerId" text REFERENCES "User", "shippingAddress" jsonb, "billingName" text,
  "cardLast4" text, "createdAt" timestamp);
