# Two public subnets: the tasks reach registries and AWS by addresses of their own, which saves a NAT gateway. Nobody
# reaches them but by the load balancer.

data "aws_availability_zones" "available" {
  #checkov:skip=CKV_AWS_394:Two zones are taken, whatever their names
  state = "available"
}

resource "aws_vpc" "this" {
  #checkov:skip=CKV2_AWS_11:Flow logs have nothing to do with what is shown here
  cidr_block           = "10.0.0.0/16"
  enable_dns_hostnames = true

  tags = { Name = var.service }
}

# Nothing uses the group that comes with a VPC, so it lets nothing through.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_subnet" "public" {
  count = 2

  vpc_id            = aws_vpc.this.id
  cidr_block        = cidrsubnet(aws_vpc.this.cidr_block, 8, count.index)
  availability_zone = data.aws_availability_zones.available.names[count.index]

  tags = { Name = "${var.service}-${count.index}" }
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = var.service }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.this.id
  }

  tags = { Name = var.service }
}

resource "aws_route_table_association" "public" {
  count = 2

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public.id
}

resource "aws_security_group" "load_balancer" {
  #checkov:skip=CKV_AWS_260:The users come from anywhere
  name        = "${var.service}-load-balancer"
  description = "Users of ${var.service}"
  vpc_id      = aws_vpc.this.id

  ingress {
    description = "Users"
    protocol    = "tcp"
    from_port   = 80
    to_port     = 80
    cidr_blocks = ["0.0.0.0/0"]
  }

  egress {
    description = "Tasks"
    protocol    = "tcp"
    from_port   = 80
    to_port     = 80
    cidr_blocks = [aws_vpc.this.cidr_block]
  }
}

resource "aws_security_group" "tasks" {
  #checkov:skip=CKV2_AWS_5:It is attached to the task sets, where checkov does not look
  name        = "${var.service}-tasks"
  description = "Tasks of ${var.service}"
  vpc_id      = aws_vpc.this.id

  ingress {
    description     = "The load balancer"
    protocol        = "tcp"
    from_port       = 80
    to_port         = 80
    security_groups = [aws_security_group.load_balancer.id]
  }

  egress {
    description = "Registries and AWS"
    protocol    = "tcp"
    from_port   = 443
    to_port     = 443
    cidr_blocks = ["0.0.0.0/0"]
  }
}
